// Package simulation runs the whole daemon, from the webhook to the record, on
// registries in memory and a clock of its own, through histories made from a
// seed: pushes, retags, deletes, lost webhooks, reloads, crashes at any write
// of the journal, registries that lose, delay, repeat, corrupt, throttle,
// vanish, forget and take a write long after its sender has given up or died,
// strangers that move tags, operators that pause, cancel, retry and resolve. It
// holds the promises at every write of a tag and again when all is calm. It is
// tests only: `make simulate` runs as many seeds as wanted, and a seed that
// fails prints the shortest history that still does.
package simulation
