// Package e2e tests real Kai processes with real clients and real faults: nodes killed with -9,
// stopped and continued, cut off from each other, their disks full or failing. It has no code but
// tests, and those run only when asked to:
//
//	KAI_E2E=1 go test ./node/e2e -count=1 -timeout 15m -v
//
// Settings, all optional:
//
//	KAI_E2E_BIN      the kai binary; built from ./node/cmd/kai when empty
//	KAI_E2E_SECONDS  how long faults go on in tests that look for rare ones (default 30)
//	KAI_E2E_SEED     seed of what clients and faults do (default: the time; printed on failure)
//	KAI_E2E_KEEP     when not empty, the directories of data and logs stay, and are printed
//	KAI_E2E_SOAK     when not empty, tests that take minutes run, too (make soak)
//	RECORDS          how many records TestElastic loads (30,000); set, it goes through more changes, too
//
// A seed fixes what is tried, not when the machine gets to it: real processes are not deterministic
// (package nodetest is). Tests that need root, or a tool, skip with a line that starts "SKIPPED:" and
// names it.
//
// Each cluster listens on loopback addresses of its own, 127.a.b.1 to 127.a.b.n with the default
// ports, so that no port is ever lost to a connection while a node is down, and tests of two checkouts
// can run at the same time. Linux only.
package e2e
