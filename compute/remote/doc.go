// Package remote carries quire.Machine and quire.Gateway across the network,
// and the raw streams from a gateway to the sessions of a node.
//
// Who talks to whom is settled by certificates of the installation's own small
// authority (identity.go): TLS 1.3 only, one role and one node in each, checked
// strictly on both sides. Calls are JSON over HTTP; errors keep their Kind.
// What lasts (Watch, Attach) is an upgraded connection with one JSON value a
// line in both directions (link.go); three seconds of silence are a broken
// link. The server reaches a node through the CONNECT of its gateway, with its
// own TLS inside, so the gateway carries what it can neither read nor forge.
package remote
