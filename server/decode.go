package server

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"mime"
	"net/http"
	"reflect"
	"strconv"
	"strings"
	"unicode/utf8"

	"quire"
	"quire/web"
)

// Field tags of In structs: `path:"owner"`, `query:"before"`, `form:"name"` for
// pages and `json:"name"` for the API. A field has exactly one of them, so that
// a body can never set what belongs to the address.

// decodeForm fills in from the address and, on POST, from a form.
func decodeForm(r *http.Request, in any) error {
	if r.Method != http.MethodGet && r.Method != http.MethodHead {
		if err := wantForm(r); err != nil {
			return err
		}
		r.Body = http.MaxBytesReader(nil, r.Body, maxForm)
		if err := r.ParseForm(); err != nil {
			var tooLarge *http.MaxBytesError
			if errors.As(err, &tooLarge) {
				return err
			}
			return quire.Invalid("", "The form could not be read.")
		}
	}
	return fill(r, reflect.ValueOf(in).Elem())
}

// wantForm checks the content type of a form. An empty body needs none.
func wantForm(r *http.Request) error {
	kind, _, err := mime.ParseMediaType(r.Header.Get("Content-Type"))
	if r.ContentLength == 0 && kind == "" {
		return nil
	}
	if err != nil || kind != "application/x-www-form-urlencoded" {
		return &web.StatusError{Status: http.StatusUnsupportedMediaType, Message: "This address takes a form (application/x-www-form-urlencoded)."}
	}
	return nil
}

// decodeJSON fills in from the address and from a JSON body. Fields that in
// does not have are refused, so nothing can be set that was not meant to be.
func decodeJSON(r *http.Request, in any) error {
	v := reflect.ValueOf(in).Elem()
	if err := fill(r, v); err != nil {
		return err
	}
	if r.Method == http.MethodGet || r.Method == http.MethodHead {
		return nil
	}
	wants := hasTag(v.Type(), "json")
	if r.ContentLength == 0 && !wants {
		return nil
	}
	kind, _, err := mime.ParseMediaType(r.Header.Get("Content-Type"))
	if err != nil || kind != "application/json" {
		return &web.StatusError{Status: http.StatusUnsupportedMediaType, Message: "This address takes JSON (application/json)."}
	}
	body, err := io.ReadAll(http.MaxBytesReader(nil, r.Body, maxBody))
	if err != nil {
		return err
	}
	if !utf8.Valid(body) {
		return quire.Invalid("", "The JSON is not valid UTF-8.")
	}
	d := json.NewDecoder(strings.NewReader(string(body)))
	d.DisallowUnknownFields()
	if err := d.Decode(in); err != nil {
		return badJSON(err)
	}
	if _, err := d.Token(); !errors.Is(err, io.EOF) {
		return quire.Invalid("", "The body must be one JSON object.")
	}
	// A body that names a field of the address would be refused above: those
	// fields carry json:"-". Fill them again all the same.
	return fill(r, v)
}

// badJSON says what is wrong with a body without repeating its content.
func badJSON(err error) error {
	var wrong *json.UnmarshalTypeError
	switch {
	case errors.As(err, &wrong):
		return quire.Invalid(wrong.Field, fmt.Sprintf("The field %q must be a %s.", wrong.Field, schemaType(wrong.Type)))
	case strings.HasPrefix(err.Error(), "json: unknown field "):
		name := strings.Trim(strings.TrimPrefix(err.Error(), "json: unknown field "), `"`)
		if len(name) > 64 {
			name = name[:64]
		}
		return quire.Invalid(name, fmt.Sprintf("There is no field %q here.", name))
	}
	return quire.Invalid("", "The body is not valid JSON.")
}

// fill sets the path, query and form fields of v, also those of embedded structs.
func fill(r *http.Request, v reflect.Value) error {
	t := v.Type()
	if t.Kind() != reflect.Struct {
		return nil
	}
	query := r.URL.Query()
	for i := range t.NumField() {
		f := t.Field(i)
		if f.Anonymous {
			if err := fill(r, v.Field(i)); err != nil {
				return err
			}
			continue
		}
		var values []string
		var name string
		switch {
		case f.Tag.Get("path") != "":
			name = f.Tag.Get("path")
			values = []string{r.PathValue(name)}
		case f.Tag.Get("query") != "":
			name = f.Tag.Get("query")
			values = query[name]
		case f.Tag.Get("form") != "":
			name = f.Tag.Get("form")
			values = r.PostForm[name]
		default:
			continue
		}
		if len(values) == 0 {
			continue
		}
		if len(values) > 1 {
			return quire.Invalid(name, fmt.Sprintf("%q was given twice.", name))
		}
		if err := set(v.Field(i), name, values[0]); err != nil {
			return err
		}
	}
	return nil
}

func set(v reflect.Value, name, s string) error {
	if !utf8.ValidString(s) || strings.ContainsRune(s, 0) {
		return quire.Invalid(name, fmt.Sprintf("%q has characters that cannot be used.", name))
	}
	switch v.Kind() {
	case reflect.String:
		v.SetString(s)
	case reflect.Bool:
		v.SetBool(s == "1" || s == "on" || s == "true" || s == "yes")
	case reflect.Int, reflect.Int64:
		if s == "" {
			return nil
		}
		n, err := strconv.ParseInt(s, 10, 64)
		if err != nil {
			return quire.Invalid(name, fmt.Sprintf("%q must be a whole number.", name))
		}
		v.SetInt(n)
	default:
		return fmt.Errorf("field %s has a kind that cannot be read from an address: %s", name, v.Kind())
	}
	return nil
}

// hasTag reports whether the struct has a field of the tag that is in use.
func hasTag(t reflect.Type, tag string) bool {
	if t.Kind() != reflect.Struct {
		return false
	}
	for i := range t.NumField() {
		f := t.Field(i)
		if f.Anonymous && hasTag(f.Type, tag) {
			return true
		}
		if v := f.Tag.Get(tag); v != "" && v != "-" {
			return true
		}
	}
	return false
}

func writeJSON(w http.ResponseWriter, v any) error {
	body, err := json.Marshal(v)
	if err != nil {
		return fmt.Errorf("answer: %w", err)
	}
	w.Header().Set("Content-Type", "application/json")
	_, err = w.Write(append(body, '\n'))
	return err
}
