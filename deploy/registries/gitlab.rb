# Twinport in /etc/gitlab/gitlab.rb of a GitLab of your own; then
# `gitlab-ctl reconfigure`. GitLab.com sends no webhooks of pushed images: poll it
# (`events: {poll: 5m}`).
#
# GitLab's convention for the secret is the bare Authorization header.
registry['notifications'] = [
  {
    'name' => 'twinport',
    'url' => 'https://twinport.example.com/hooks/gitlab',
    'timeout' => '5s',
    'threshold' => 5,
    'backoff' => '10s',
    'headers' => {
      'Authorization' => ['the secret of registries.gitlab.webhook']
    }
  }
]
