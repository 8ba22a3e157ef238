# The image of a Kai node: one static binary, no shell, not root, the root file system read only.
#
#   docker build -t kai .
#   docker run -p 11211:11211 -v kai:/data --read-only --cap-drop ALL kai
#
# Where there is no network, vendor the modules first (go mod vendor) and name a local Go image.
# For other architectures: docker buildx build --platform linux/amd64,linux/arm64 .

ARG GO_IMAGE=golang:1.26

FROM ${GO_IMAGE} AS build
LABEL kai.stage=build
ARG TARGETOS
ARG TARGETARCH
ARG VERSION=dev
WORKDIR /src
COPY . .
# The same flags as in the Makefile, so that the binary is the same, bit for bit (vendored or not, like the other).
RUN CGO_ENABLED=0 GOOS=${TARGETOS} GOARCH=${TARGETARCH} \
    go build -trimpath -buildvcs=false -ldflags "-s -w -buildid= -X main.version=${VERSION}" -o /out/kai ./node/cmd/kai \
    && mkdir -p /out/data

FROM scratch
ARG VERSION=dev
LABEL org.opencontainers.image.title="kai" \
      org.opencontainers.image.description="Distributed, persistent key-value store that speaks the memcache protocol" \
      org.opencontainers.image.licenses="Apache-2.0" \
      org.opencontainers.image.version="${VERSION}"
COPY --from=build /etc/ssl/certs/ca-certificates.crt /etc/ssl/certs/ca-certificates.crt
COPY --from=build /out/kai /kai
# A new volume takes its owner from here.
COPY --from=build --chown=65532:65532 /out/data /data

# In a container loopback is of no use to anybody else; who may reach the ports is decided outside.
ENV KAI_LISTEN=:11211 KAI_PEER_LISTEN=:11212 KAI_GOSSIP_LISTEN=:11213 KAI_ADMIN_LISTEN=:11214 KAI_DATA_DIR=/data
USER 65532:65532
VOLUME /data
EXPOSE 11211/tcp 11212/tcp 11213/tcp 11213/udp 11214/tcp
STOPSIGNAL SIGTERM
HEALTHCHECK --interval=5s --timeout=3s --start-period=60s --retries=3 CMD ["/kai", "healthcheck"]
ENTRYPOINT ["/kai"]
