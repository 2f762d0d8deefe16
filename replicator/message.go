package replicator

// A Message is one of a queue that a registry's events wait in: a provider's
// queue gives it, the daemon takes it in and has it taken away.
type Message struct {
	// Handle is the queue's name for this handing-out of the message.
	Handle string
	// Told is what it says, as a webhook's decoder gives it.
	Told Decoded
	// SetsAside: the queue moves what is never taken away to another for dead
	// letters, where a person finds it.
	SetsAside bool
	// Again: it has been handed out before.
	Again bool
}
