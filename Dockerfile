# modelsplit in a container, beside Ollama. Two stages: the second has no compiler, no pip and no
# source tree, only a Python, one virtual environment and a user that owns nothing but its state.
#
#   docker build -t modelsplit .
#   docker run --rm -p 127.0.0.1:11435:11435 --add-host host.docker.internal:host-gateway \
#       -v modelsplit:/var/lib/modelsplit modelsplit

FROM python:3.12-slim AS build
WORKDIR /src
# .dockerignore lets through what the wheel is made of and nothing else.
COPY . .
RUN python -m pip wheel --no-cache-dir --no-deps --wheel-dir /wheels .
# --without-pip: what runs needs no installer. --only-binary: a platform without ready-made wheels
# fails here, with a name, and not in a compiler that is not installed.
RUN python -m venv --without-pip /opt/modelsplit \
    && python -m pip --python /opt/modelsplit/bin/python install \
        --no-cache-dir --only-binary=:all: /wheels/modelsplit-*.whl

FROM python:3.12-slim
COPY --from=build /opt/modelsplit /opt/modelsplit
# A numeric user: Kubernetes' runAsNonRoot cannot judge a name. A new volume takes over the
# folder's owner and mode.
RUN install -d -o 65532 -g 65532 -m 0700 /var/lib/modelsplit
USER 65532:65532
WORKDIR /var/lib/modelsplit
VOLUME /var/lib/modelsplit

# Inside a container 127.0.0.1 is the container. This name is the host's Ollama (on Linux with
# --add-host host.docker.internal:host-gateway); with compose say MODELSPLIT_UPSTREAM=http://ollama:11434.
ENV MODELSPLIT_UPSTREAM=http://host.docker.internal:11434 \
    PYTHONDONTWRITEBYTECODE=1 \
    MALLOC_MMAP_THRESHOLD_=131072 \
    PATH=/opt/modelsplit/bin:$PATH
# MALLOC_MMAP_THRESHOLD_: what is large is given back to the system as soon as it is free.
# docker exec modelsplit modelsplit status
# A policy of one's own: -v ./model-policy.json:/etc/modelsplit/model-policy.json:ro

# 11435 Ollama's API; 11436 metrics, health, dashboard.
EXPOSE 11435 11436

# SIGTERM drains for 30 s. Docker kills after 10: docker stop -t 40, or stop_grace_period: 40s.
STOPSIGNAL SIGTERM

# The admin port, asked from inside. Any other status than 2xx raises, and so does silence.
HEALTHCHECK --interval=10s --timeout=3s --start-period=10s --retries=3 \
    CMD ["/opt/modelsplit/bin/python", "-I", "-c", \
         "import urllib.request as r; r.build_opener(r.ProxyHandler({})).open('http://127.0.0.1:11436/healthz', timeout=2)"]

ENTRYPOINT ["/opt/modelsplit/bin/modelsplit"]
# Everywhere else the default is loopback. In a container loopback reaches nobody, and what can
# reach 0.0.0.0 is decided outside, by -p and the container's network: publish on 127.0.0.1 unless
# others are meant to come. Names that clients use for it need --allow-host. The admin port is not
# for the network and stays on the container's loopback unless asked: add --admin 0.0.0.0:11436.
CMD ["serve", "--listen", "0.0.0.0:11435", "--state", "/var/lib/modelsplit"]
