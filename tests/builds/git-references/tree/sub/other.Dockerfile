FROM busybox
COPY sub /sub
