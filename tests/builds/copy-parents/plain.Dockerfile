FROM busybox
WORKDIR /app
COPY packages/a/package.json packages/a/
COPY packages/b/package.json packages/b/
COPY packages/./a/src/one.js /pivot/a/src/
COPY packages/b /pivot/packages/b/
