package generic

import "context"

// Credentials makes a registry use its credentials once.
func Credentials(ctx context.Context, r *Registry) (string, error) {
	c, err := r.auth.credentials(ctx)
	return c.basic(), err
}

// WithGuard is withGuard.
var WithGuard = withGuard
