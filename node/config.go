package node

import (
	"log/slog"
	"time"

	"kai/node/ring"
)

// Config is everything a node can be told from outside. Load makes one from an environment; a
// Config made by hand must hold what Load would have refused.
//
// The tags are the single source of names, defaults and one-line meanings: the README table, `kai
// config` and the error messages are all made of them. want says what a right value looks like.
type Config struct {
	// Listen serves memcache clients. It is loopback by default because the protocol has no
	// authentication: opening it to a network is a decision.
	Listen ListenAddr `env:"KAI_LISTEN" envDefault:"127.0.0.1:11211" means:"memcache clients connect here (TCP)" want:"ip:port, for example 127.0.0.1:11211, or :11211 for all interfaces"`
	// PeerListen serves replica messages of the other nodes.
	PeerListen ListenAddr `env:"KAI_PEER_LISTEN" envDefault:"127.0.0.1:11212" means:"other nodes send replica messages here (TCP)" want:"ip:port, for example 127.0.0.1:11212"`
	// GossipListen serves membership; discovery finds peers by this address.
	GossipListen ListenAddr `env:"KAI_GOSSIP_LISTEN" envDefault:"127.0.0.1:11213" means:"membership gossip (TCP and UDP)" want:"ip:port, for example 127.0.0.1:11213"`
	// AdminListen serves health, status, metrics and the console; off the data path.
	AdminListen ListenAddr `env:"KAI_ADMIN_LISTEN" envDefault:"127.0.0.1:11214" means:"health, status, metrics and the console (HTTP)" want:"ip:port, for example 127.0.0.1:11214"`
	// Advertise is the host that other nodes use to reach this one. Load derives it from the peer or
	// gossip listen address when one of them names an interface; ResolveAdvertise does the rest.
	Advertise string `env:"KAI_ADVERTISE" means:"IP address or name under which other nodes reach this one; derived from the listen addresses, or the first private interface address, when empty" want:"an IP address or a host name, without a port"`
	// DataDir is the node's identity: an empty directory makes a new node. One process at a time.
	DataDir string `env:"KAI_DATA_DIR" envDefault:"./data" means:"directory of records, node id and founding; an empty one makes a new node" want:"a directory"`
	// Cluster is for people and keeps the gossip of two clusters apart; the cluster id, made at
	// founding, is what nodes check.
	Cluster string `env:"KAI_CLUSTER" envDefault:"kai" means:"name of the cluster" want:"1 to 64 letters, digits, dots, dashes and underscores"`
	// Discovery says where peers may be found; syntax in package discovery. Empty is right for a
	// cluster of one.
	Discovery string `env:"KAI_DISCOVERY" means:"where to find peers, one or several: static:host:port,… dns:name:port file:path aws:tag=KEY=VALUE aws:asg=NAME gce:label=KEY=VALUE gce:group=NAME; addresses are gossip addresses" want:"static:host:port,… or dns:name:port or dns:_service._tcp.name or file:path or aws:tag=KEY=VALUE or aws:asg=NAME or gce:label=KEY=VALUE or gce:group=NAME"`
	// BootstrapExpect is how many nodes a new cluster waits for before it is founded. It has no
	// meaning once the data directory belongs to a cluster.
	BootstrapExpect int `env:"KAI_BOOTSTRAP_EXPECT" envDefault:"1" means:"number of nodes that found a new cluster together" want:"a number from 1 to 1000, the same on all founders"`
	// Quorum is fixed at founding: a node that disagrees with its cluster refuses to join.
	Quorum ring.Quorum `env:"KAI_QUORUM" envDefault:"3:2:2" means:"N:R:W, replicas of a record, replies a read needs, acknowledgements a write needs; fixed at founding" want:"N:R:W with R+W>N and W>N/2, for example 3:2:2"`
	// Partitions is fixed at founding. More partitions balance better and cost more bookkeeping;
	// 1024 suits clusters up to about 100 nodes.
	Partitions int `env:"KAI_PARTITIONS" envDefault:"1024" means:"slices of the hash space; fixed at founding" want:"a power of two from 1 to 65536, for example 1024"`
	// VNodes is fixed at founding.
	VNodes int `env:"KAI_VNODES" envDefault:"128" means:"places of a node on the ring; fixed at founding" want:"a number from 1 to 4096, for example 128"`
	// Zone lets placement put the replicas of a partition into distinct failure domains.
	Zone string `env:"KAI_ZONE" means:"failure domain of this node; replicas spread over zones. With aws: and gce: in KAI_DISCOVERY the cloud tells it" want:"up to 64 letters, digits, dots, dashes and underscores"`
	// Weight lets larger machines hold more. It may change with a restart: partitions move then.
	Weight ring.Weight `env:"KAI_WEIGHT" envDefault:"1.0" means:"how much this node is to hold, beside the others' weights" want:"a number from 0.1 to 10, for example 2"`
	// Durability trades latency for what an acknowledgement stands for: with always, data flushed to
	// disk on W nodes; with interval, data flushed within moments, so that a power cut of W machines
	// at once can lose the last of them.
	Durability Durability `env:"KAI_DURABILITY" envDefault:"always" means:"when a write is flushed to disk: always before it is acknowledged, or at an interval" want:"always or interval"`
	// TraceSlow is what people call slow here: such requests are kept, with what each replica said.
	TraceSlow time.Duration `env:"KAI_TRACE_SLOW" envDefault:"100ms" means:"requests that take as long or longer are kept for kai trace slow; 0: none is kept at all, for whatever reason" want:"0, or a duration from 100us to 1m, for example 100ms"`
	// TraceRatio is for the shape of ordinary requests.
	TraceRatio float64 `env:"KAI_TRACE_RATIO" envDefault:"0" means:"share of all requests that is kept and exported, with their replicas' parts, besides those that are slow, failed, diverged or hinted" want:"a number from 0 to 1, for example 0.001"`
	// RequestTimeout bounds one client request; at its end the client is told what is known.
	RequestTimeout time.Duration `env:"KAI_REQUEST_TIMEOUT" envDefault:"2s" means:"longest time a client waits for an answer" want:"a duration from 10ms to 1m, for example 2s"`
	// ReplaceAfter is how long a node may be dead before others take over what it held. A restart or a
	// short loss of the network should cost no move.
	ReplaceAfter time.Duration `env:"KAI_REPLACE_AFTER" envDefault:"2m" means:"how long a node may be dead until others take over its partitions" want:"a duration from 1s to 24h, for example 2m"`
	// TransferRate bounds what moving partitions and repair may cost this node; below it, the rate follows what
	// the node's clients feel.
	TransferRate Bytes `env:"KAI_TRANSFER_RATE" envDefault:"64MiB" means:"bytes a second that a node hands over or takes over at most when partitions move, each counting 256 KiB more; less as soon as its clients' slowest reads take twice as long as before" want:"a size from 1MiB to 1TiB"`
	// PurgeAfter trades the space of deleted and expired records against answers: a mutation that is retried
	// behind the purge of its own effects is told that its outcome is unknown.
	PurgeAfter time.Duration `env:"KAI_PURGE_AFTER" envDefault:"10m" means:"how long a record must have been deleted or expired before its replicas forget it, all of them being there; 0 for never" want:"a duration from 0 to 8760h, for example 10m"`
	// DrainTimeout is how long a node that is told to stop hands over first. It does so only when there
	// are other nodes enough to take its place.
	DrainTimeout time.Duration `env:"KAI_DRAIN_TIMEOUT" envDefault:"5m" means:"how long a node that stops may hand over its partitions first, if there are nodes to take them; 0 to stop at once" want:"a duration from 0 to 24h, for example 5m"`
	// Moves bounds how much of the cluster is between two places at once.
	Moves int `env:"KAI_MOVES" envDefault:"8" means:"partitions that move at the same time" want:"a number from 1 to 1000"`
	// MaxValueBytes bounds one value. Memory for requests under way grows with it.
	MaxValueBytes Bytes `env:"KAI_MAX_VALUE_BYTES" envDefault:"1048576" means:"largest value, in bytes; the same on all nodes" want:"1 to 64MiB, as bytes or with KiB or MiB"`
	// MaxConnections bounds client connections; one more is told so and closed.
	MaxConnections int `env:"KAI_MAX_CONNECTIONS" envDefault:"4096" means:"client connections at the same time" want:"a number from 1 to 1000000"`
	// CacheBytes is memory for records above Badger. 0 turns the cache off.
	CacheBytes Bytes `env:"KAI_CACHE_BYTES" envDefault:"256MiB" means:"memory for the record cache; 0 turns it off. Half as much again (64 to 256 MiB) holds writes on their way to the table" want:"0 or a size such as 256MiB or 2GiB, at most 1TiB"`
	// BackupURL is a bucket. Snapshots are taken as long as it is set.
	BackupURL string `env:"KAI_BACKUP_URL" means:"bucket for snapshots, the same on all nodes: s3://bucket?region=R&prefix=P/, gs://bucket?prefix=P/ or file:///dir; empty for none" want:"s3://my-bucket?region=eu-central-1&prefix=kai/, gs://my-bucket?prefix=kai/, or file:// and an absolute path"`
	// BackupInterval is the most that a restore loses.
	BackupInterval time.Duration `env:"KAI_BACKUP_INTERVAL" envDefault:"1h" means:"time between two snapshots; 0 for only those that are asked for" want:"0, or a duration from 1m to 8760h, for example 1h"`
	// BackupKeep bounds the bucket.
	BackupKeep int `env:"KAI_BACKUP_KEEP" envDefault:"24" means:"how many complete snapshots of each cluster stay in the bucket" want:"a number from 1 to 100000"`
	// BackupKey encrypts keys and values in snapshots (XChaCha20-Poly1305). A snapshot is lost without it.
	BackupKey Secret `env:"KAI_BACKUP_KEY" means:"key that encrypts snapshots, the same on all nodes and for kai backup; without it they are lost; secret" want:"32 random bytes in base64; make one with: head -c 32 /dev/urandom | base64"`
	// BackupUploadRate and BackupDownloadRate are averages over some objects of up to 4 MiB.
	BackupUploadRate   Bytes `env:"KAI_BACKUP_UPLOAD_RATE" envDefault:"0" means:"bytes a second that a node uploads at most for snapshots, on the average of some packs; 0 for no limit" want:"0, or a size from 64KiB to 1TiB"`
	BackupDownloadRate Bytes `env:"KAI_BACKUP_DOWNLOAD_RATE" envDefault:"0" means:"bytes a second that a node, or kai backup, downloads at most, on the average; 0 for no limit" want:"0, or a size from 64KiB to 1TiB"`
	// Expiration is off by default because Kai is a store: a client that sets an exptime out of habit
	// would lose data it meant to keep.
	Expiration bool `env:"KAI_EXPIRATION" envDefault:"false" means:"allow an exptime other than 0" want:"true or false"`
	// FlushAll is off by default: one stray line would empty the store.
	FlushAll bool `env:"KAI_FLUSH_ALL" envDefault:"false" means:"allow flush_all" want:"true or false"`
	// GossipKey encrypts gossip (AES-128, -192 or -256). All nodes of a cluster have the same.
	GossipKey Secret `env:"KAI_GOSSIP_KEY" means:"key that encrypts gossip, the same on all nodes; secret" want:"16, 24 or 32 random bytes in base64; make one with: head -c 32 /dev/urandom | base64"`
	// LogLevel is the least level that is written.
	LogLevel LogLevel `env:"KAI_LOG_LEVEL" envDefault:"info" means:"least level of log lines: debug, info, warn or error" want:"debug, info, warn or error"`
	// LogFormat is how log lines look on stderr.
	LogFormat LogFormat `env:"KAI_LOG_FORMAT" envDefault:"json" means:"log lines on stderr as json or as text" want:"json or text"`

	given             map[string]bool // variables taken from the environment
	advertiseResolved bool            // Advertise was derived, not given
}

// LogLevel is a slog.Level of the four that Kai uses.
type LogLevel slog.Level

// Level makes a LogLevel a slog.Leveler.
func (l LogLevel) Level() slog.Level { return slog.Level(l) }
