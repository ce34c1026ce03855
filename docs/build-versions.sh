#!/usr/bin/env bash
# Builds the manual of every release and of the current state into one site:
#
#   docs/build-versions.sh target/site
#
# target/site/v0.1.0/, … the release of that tag; target/site/main/ the current state. The front page leads to the newest
# release, or to main before the first one. Needs mdbook, and a clone with its tags.
set -euo pipefail
cd "$(dirname "$0")/.."
site=$(realpath --canonicalize-missing "${1:?usage: docs/build-versions.sh FOLDER}")
mkdir -p "$site"

mdbook build --dest-dir "$site/main"
newest=main
links='<li><a href="main/">main</a>: the current state</li>'
sources=$(mktemp -d)
trap 'rm -rf "$sources"' EXIT
# From the oldest to the newest; releases only, no candidates.
for tag in $(git tag --list 'v*' --sort version:refname | grep -E '^v[0-9]+\.[0-9]+\.[0-9]+$' || true); do
  git archive "$tag" --prefix "$tag/" | tar -x -C "$sources"
  mdbook build "$sources/$tag" --dest-dir "$site/$tag"
  newest=$tag
  links="<li><a href=\"$tag/\">$tag</a></li>$links"
done

cat > "$site/index.html" <<HTML
<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta http-equiv="refresh" content="0; url=$newest/">
<title>Setpoint</title>
</head>
<body>
<p>The manual of <a href="$newest/">$newest</a>. All versions:</p>
<ul>$links</ul>
</body>
</html>
HTML
