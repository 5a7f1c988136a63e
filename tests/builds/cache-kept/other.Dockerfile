FROM busybox
ARG TURN
RUN --mount=type=cache,target=/elsewhere echo "$TURN" >> /elsewhere/turns && wc -l < /elsewhere/turns > /private-turns
RUN --mount=type=cache,id=common,target=/another,sharing=locked echo "$TURN" >> /another/turns && wc -l < /another/turns > /common-turns
