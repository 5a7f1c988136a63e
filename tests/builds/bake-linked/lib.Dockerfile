FROM busybox
RUN echo lib > /lib-file
ENV LIB=1
