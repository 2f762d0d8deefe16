package check

import "context"

// webhook looks whether a registry's webhooks could prove themselves; nothing
// is asked of anybody.
func webhook(h Hook) outcome {
	switch {
	case h.NotNeeded != "":
		return skipped("not needed: %s", h.NotNeeded)
	case len(h.Secrets) == 0 && h.Verified:
		return ok("deliveries prove themselves")
	case len(h.Secrets) == 0:
		return warning("set webhook: {secret: ...} for this registry, and the same where it sends its webhooks from",
			"no secret: whoever reaches the listen address can tell of pushes")
	}
	for _, secret := range h.Secrets {
		value, err := secret()
		if err != nil {
			return failure("check webhook.secret of this registry", "%v", err)
		}
		if value == "" {
			return failure("check webhook.secret of this registry", "the secret is empty: every webhook is refused")
		}
	}
	if len(h.Secrets) > 1 {
		return ok("%d secrets are set", len(h.Secrets))
	}
	return ok("a secret is set")
}

// events looks at where events are fetched from. It is another service than the
// registry, which may be there when the registry is not.
func (r *run) events(ctx context.Context) {
	e := r.s.Events
	switch {
	case e.From == "":
		r.found[cEvents] = skipped("not needed: none are fetched")
	case e.Queue == nil:
		r.found[cEvents] = ok("%s: it is asked for its tags", e.From)
	default:
		r.found[cEvents] = within(ctx, askTime, func(ctx context.Context) outcome {
			detail, err := e.Queue.Probe(ctx)
			if err != nil {
				return failed(err)
			}
			return ok("%s: %s", e.From, detail)
		})
	}
}
