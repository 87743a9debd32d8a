package spawner

import (
	"strings"
	"testing"

	"quire"
)

// A newer server may limit an order by a word that this node does not know; it
// is not carried out without the limit.
func TestUnknownWordsOfAnOrder(t *testing.T) {
	var team quire.TeamArgs
	if err := unmarshal([]byte(`{"editors":[20001]}`), &team); err != nil || len(team.Editors) != 1 {
		t.Errorf("%v %+v", err, team)
	}
	for _, args := range []string{`{"editors":[20001],"only_until":"noon"}`, `{"editors":"all"}`, `[`} {
		err := unmarshal([]byte(args), &quire.TeamArgs{})
		if quire.KindOf(err) != quire.KindInvalid || !strings.Contains(err.Error(), "Upgrade the node.") {
			t.Errorf("%s: %v", args, err)
		}
	}
}
