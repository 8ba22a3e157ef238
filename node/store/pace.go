package store

import "time"

// pacer spaces the syncs of a busy store. A sync costs the same for one writer and for many, much of
// it processor time. Where syncs themselves have to queue, for a processor or for the disk, a little
// patience brings more writers into each, there are fewer of them, and everybody is served sooner;
// where they do not, patience is only delay. The sign of a queue is a sync that takes several times
// what it can take. (Trying both ways by turns and taking the faster was the other candidate: it does
// not find what three nodes on one disk gain, as each sees only its own third of what its patience
// brings.) The committer's own.
type pacer struct {
	ended   time.Time     // of the last sync
	mean    time.Duration // of syncs, moving
	floor   time.Duration // of syncs: the shortest, slowly forgotten
	batch   int           // mean number of entries of a sync, moving, in sixteenths
	patient bool
}

const (
	// A queue is seen when the mean reaches queueBegins floors, and gone when it is below queueEnds.
	queueBegins = 3
	queueEnds   = 2
	// company is the least number of entries a sync with which there are writers to wait for.
	company = 3
	// A patient batch begins so many syncs' time after the last sync: longShare with few entries a
	// sync, each of which bears much of its cost, falling to shortShare with many.
	longShare, few   = 5, 8
	shortShare, many = 2, 16
	// enough entries a sync would only wait longer. A node alone has enough when it has many: most of
	// its clients wait for this very sync, and there is nothing else for it to do. In a cluster the
	// sync is one of several that they wait for, and there is what others want of this node.
	enough = 64
	// maxPace bounds it where syncs are slow.
	maxPace = 3 * time.Millisecond
)

// synced notes a sync that took d, for entries.
func (p *pacer) synced(ended time.Time, d time.Duration, entries int) {
	p.ended = ended
	p.batch += entries - p.batch/16
	if p.mean == 0 {
		p.mean, p.floor = d, d
	}
	p.mean += (d - p.mean) / 8
	p.floor = min(d, p.floor+p.floor/512)
	switch {
	case p.batch < 16*company || p.mean < queueEnds*p.floor:
		p.patient = false
	case p.mean >= queueBegins*p.floor && p.floor > 0:
		p.patient = true
	}
}

// wait is how long a batch that is complete at now should wait for company, in a node that is alone or
// not; not positive: not at all.
func (p *pacer) wait(now time.Time, alone bool) time.Duration {
	most := enough
	if alone {
		most = many
	}
	if !p.patient || p.batch >= 16*most {
		return 0
	}
	const span = 16 * (many - few)
	beyond := time.Duration(min(max(p.batch-16*few, 0), span))
	pause := p.mean*longShare - p.mean*(longShare-shortShare)*beyond/span
	return p.ended.Add(min(pause, maxPace)).Sub(now)
}
