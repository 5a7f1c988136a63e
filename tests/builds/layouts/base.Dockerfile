FROM busybox
RUN echo before > /made
ENV BASE=yes
