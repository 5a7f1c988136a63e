FROM busybox
ARG WORD
LABEL word=$WORD
ENTRYPOINT ["echo"]
CMD ["entry", "and", "command"]
