package node

import (
	"context"
	"fmt"
	"path/filepath"
	"time"

	"kai/discovery"
)

// zoneWait bounds how long a start waits for its cloud to tell where it is.
const zoneWait = 15 * time.Second

// learnZone fills in KAI_ZONE from the cloud's metadata, if KAI_DISCOVERY names a cloud. A node of which nobody knows
// where it is would spread replicas wrongly, and not be noticed: so it must have heard once. After that its disk remembers, since
// a disk does not leave its zone.
func (n *node) learnZone(ctx context.Context) error {
	if n.cfg.Zone != "" {
		return nil
	}
	place, err := discovery.Here(ctx, n.cfg.Discovery)
	if err == nil && !isName(place.Zone) {
		err = fmt.Errorf("the cloud calls the zone %q, which is not a name", place.Zone)
	}
	switch {
	case err != nil && n.identity.Zone == "":
		return fmt.Errorf("KAI_ZONE: %w; set KAI_ZONE to the failure domain of this machine", err)
	case err != nil:
		n.cfg.Zone = n.identity.Zone
		n.log.Warn("the zone is what it was at the last start", "zone", n.cfg.Zone, "error", err)
		return nil
	case place == discovery.Place{}:
		return nil
	}
	n.cfg.Zone, n.place = place.Zone, place
	n.log.Info("where this node is", "instance", place.Instance, "zone", place.Zone)
	if n.identity.Zone == place.Zone {
		return nil
	}
	n.identity.Zone = place.Zone
	return writeJSON(filepath.Join(n.cfg.DataDir, identityName), n.identity)
}
