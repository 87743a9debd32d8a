// Package web is how Quire speaks to a browser: handlers that return errors,
// the page or JSON that an error becomes, safe redirects, hashed assets,
// templates and Markdown. It knows no noun of the product.
package web
