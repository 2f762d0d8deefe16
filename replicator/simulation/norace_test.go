//go:build !race

package simulation

// raceEnabled: the race detector makes histories some ten times as long.
const raceEnabled = false
