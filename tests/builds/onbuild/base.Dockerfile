FROM busybox
WORKDIR /app
ONBUILD ARG KIND=plain
ONBUILD COPY app.txt ./
ONBUILD RUN echo "$KIND" > kind && wc -l < app.txt > lines
ENV BASE=yes
