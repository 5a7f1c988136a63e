FROM busybox
RUN --network=elsewhere true
