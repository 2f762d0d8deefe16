package limit

// CloseIdle closes the connections that no request uses, where what is below
// can do so (it has a method CloseIdleConnections): a process that has run out
// of descriptors takes them back.
func (r *Registry) CloseIdle() {
	if base, ok := r.base.(interface{ CloseIdleConnections() }); ok {
		base.CloseIdleConnections()
	}
}
