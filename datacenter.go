package quire

// A DataCenter is one gateway and the nodes it reaches.
type DataCenter struct {
	ID      DataCenterID `json:"id"`
	Name    string       `json:"name"`
	Gateway NodeID       `json:"gateway"`
	Address string       `json:"address"` // host:port of the gateway's control side
	Summary string       `json:"summary,omitempty"`
	Apps    string       `json:"apps,omitempty"` // where browsers find its apps, as the configuration key says; "" = as the server's configuration says
	Up      bool         `json:"up"`
	Reason  string       `json:"reason,omitempty"` // why it is not up
	Version string       `json:"version,omitempty"`
	Peer    Peer         `json:"peer"`
}
