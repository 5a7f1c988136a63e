FROM busybox
COPY file /file
