package server

import (
	"encoding/json"
	"fmt"
	"reflect"
	"regexp"
	"sort"
	"strings"
	"time"
)

// openAPI makes the OpenAPI document of the table's API rows from their in and
// out types.
func openAPI(routes []Route, version string) ([]byte, error) {
	d := schemas{all: map[string]any{}}
	paths := map[string]map[string]any{}
	for _, r := range routes {
		if !r.API() || r.Out == nil {
			continue
		}
		op := map[string]any{
			"summary": r.Summary, "operationId": operationID(r),
			"responses": map[string]any{
				"200":     map[string]any{"description": "OK", "content": jsonContent(d.of(r.Out))},
				"default": map[string]any{"description": "An error", "content": jsonContent(d.of(reflect.TypeFor[errorBody]()))},
			},
		}
		if r.Who == Nobody {
			op["security"] = []any{}
		}
		var params []any
		body := map[string]any{}
		for _, f := range apiFields(r.In) {
			if f.Where == "body" {
				continue
			}
			params = append(params, map[string]any{"name": f.Name, "in": f.Where, "required": f.Where == "path", "schema": map[string]any{"type": f.Type}})
		}
		if r.In != nil {
			d.properties(r.In, body)
		}
		if params != nil {
			op["parameters"] = params
		}
		if len(body) > 0 {
			op["requestBody"] = map[string]any{"required": true, "content": jsonContent(map[string]any{"type": "object", "properties": body, "additionalProperties": false})}
		}
		if paths[r.Path()] == nil {
			paths[r.Path()] = map[string]any{}
		}
		paths[r.Path()][strings.ToLower(r.Method())] = op
	}
	return json.MarshalIndent(map[string]any{
		"openapi": "3.1.0",
		"info":    map[string]any{"title": "Quire", "version": version, "description": "Every page of the portal as JSON. Get a token with POST /api/v1/logins and send it as Authorization: Bearer."},
		"paths":   paths,
		"components": map[string]any{"schemas": d.all,
			"securitySchemes": map[string]any{"bearer": map[string]any{"type": "http", "scheme": "bearer"}}},
		"security": []any{map[string]any{"bearer": []any{}}},
	}, "", " ")
}

type errorBody struct {
	Error struct {
		Kind       string `json:"kind"`
		Message    string `json:"message"`
		Field      string `json:"field,omitempty"`
		RetryAfter int    `json:"retry_after,omitempty"`
		Request    string `json:"request"`
	} `json:"error"`
}

var braces = regexp.MustCompile(`\{(\w+)(?:\.\.\.)?\}`)

// operationID is a stable name for code generators: get_projects_owner_project.
func operationID(r Route) string {
	path := braces.ReplaceAllString(strings.TrimPrefix(r.Path(), "/api/v1/"), "$1")
	return strings.ToLower(r.Method()) + "_" + strings.NewReplacer("/", "_", "-", "_", ".", "_").Replace(path)
}

func jsonContent(schema any) map[string]any {
	return map[string]any{"application/json": map[string]any{"schema": schema}}
}

// schemas collects the named types that were met.
type schemas struct{ all map[string]any }

func (d schemas) of(t reflect.Type) map[string]any {
	switch t {
	case reflect.TypeFor[time.Time]():
		return map[string]any{"type": "string", "format": "date-time"}
	}
	switch t.Kind() {
	case reflect.Pointer:
		return d.of(t.Elem())
	case reflect.Slice, reflect.Array:
		return map[string]any{"type": "array", "items": d.of(t.Elem())}
	case reflect.Map:
		return map[string]any{"type": "object", "additionalProperties": d.of(t.Elem())}
	case reflect.Struct:
		if t.Name() == "" {
			return d.object(t)
		}
		name := upper(t.Name())
		if _, ok := d.all[name]; !ok {
			d.all[name] = nil // a type may contain itself
			d.all[name] = d.object(t)
		}
		return map[string]any{"$ref": "#/components/schemas/" + name}
	}
	return map[string]any{"type": schemaType(t)}
}

func (d schemas) object(t reflect.Type) map[string]any {
	props := map[string]any{}
	d.properties(t, props)
	return map[string]any{"type": "object", "properties": props}
}

// properties adds the JSON fields of a struct, also those of embedded ones.
func (d schemas) properties(t reflect.Type, into map[string]any) {
	for i := range t.NumField() {
		f := t.Field(i)
		name, _, _ := strings.Cut(f.Tag.Get("json"), ",")
		switch {
		case f.Anonymous && name == "":
			d.properties(f.Type, into)
		case name == "-" || name == "" || !f.IsExported():
		default:
			into[name] = d.of(f.Type)
		}
	}
}

// schemaType is a kind in the words of JSON Schema.
func schemaType(t reflect.Type) string {
	if t == nil {
		return "value"
	}
	switch t.Kind() {
	case reflect.Pointer:
		return schemaType(t.Elem())
	case reflect.Bool:
		return "boolean"
	case reflect.Int, reflect.Int8, reflect.Int16, reflect.Int32, reflect.Int64, reflect.Uint, reflect.Uint8, reflect.Uint16, reflect.Uint32, reflect.Uint64:
		return "integer"
	case reflect.Float32, reflect.Float64:
		return "number"
	case reflect.Slice, reflect.Array:
		return "array"
	case reflect.Struct, reflect.Map:
		return "object"
	}
	return "string"
}

// apiFields lists what a row reads: address first, then query, then body.
func apiFields(t reflect.Type) (out []apiField) {
	if t == nil {
		return nil
	}
	var walk func(t reflect.Type)
	walk = func(t reflect.Type) {
		for i := range t.NumField() {
			f := t.Field(i)
			if f.Anonymous {
				walk(f.Type)
				continue
			}
			for where, name := range map[string]string{"path": f.Tag.Get("path"), "query": f.Tag.Get("query"), "body": strings.TrimSuffix(f.Tag.Get("json"), ",omitempty")} {
				if name != "" && name != "-" {
					out = append(out, apiField{name, where, schemaType(f.Type)})
				}
			}
		}
	}
	walk(t)
	rank := map[string]int{"path": 0, "query": 1, "body": 2}
	sort.SliceStable(out, func(i, j int) bool { return rank[out[i].Where] < rank[out[j].Where] })
	return out
}

// typeName says an answer's type in a word.
func typeName(t reflect.Type) string {
	switch {
	case t == nil:
		return ""
	case t.Kind() == reflect.Pointer:
		return typeName(t.Elem())
	case t.Kind() == reflect.Slice:
		return fmt.Sprintf("list of %s", typeName(t.Elem()))
	case t.Name() != "":
		return upper(t.Name())
	}
	return "object"
}
