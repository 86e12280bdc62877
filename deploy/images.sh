#!/usr/bin/env bash
# Build the images of the Kubernetes manifests: `deploy/images.sh`, or `deploy/images.sh registry.example.com/fraud` to push them too.
set -euo pipefail
cd "$(dirname "$0")/.."
version=$(sed -n 's/^version = "\(.*\)"$/\1/p' pyproject.toml)
for each in serve:saker life:saker-life; do
  target=${each%%:*} image=${each#*:}:$version
  docker build --file deploy/Dockerfile --target "$target" --tag "$image" .
  if [ -n "${1-}" ]; then
    docker tag "$image" "$1/$image"
    docker push "$1/$image"
  fi
done
