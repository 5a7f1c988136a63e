FROM busybox
COPY . /context/
