// Package integration holds twinport to its promises from outside: the real
// binary between real CNCF distribution registries that send their own
// notifications, with processes killed, connections cut and content removed
// behind its back. Each test is named after the promise it can break.
//
//	go test ./...            # about 6 minutes on 2 cores
//	go test -short ./...     # the same promises, fewer rounds, no race detector
//
// TWINPORT_RACE=off uses the ordinary binary where the one with the race
// detector would be; tests that measure memory or rates always do.
package integration
