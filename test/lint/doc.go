// Package lint holds the rules of this repository as tests: which package may
// import which, how large things may grow, what source may not contain, and
// that the documents still describe what is there. Each rule gives its reason
// when it is broken. The tests read the source themselves, through files that
// the test cache watches, so a cached "ok" is never older than the tree.
package lint
