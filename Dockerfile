# The checkout with its environment; what follows the image's name is what ./run takes.
#   docker build -t selfflow-wm .
#   docker run --rm -v "$PWD/runs:/app/runs" selfflow-wm            # ./run eval
#   docker run --rm selfflow-wm test                                # ./run test
# torch is the package index's own build, which has CUDA and works on CPUs too:
#   docker run --rm --gpus all selfflow-wm eval policy.device=cuda
# For CPUs alone, name the index of PyTorch's CPU wheels, as its installation page gives it; the image
# is 5 GB smaller:
#   docker build -t selfflow-wm --build-arg TORCH_INDEX_URL=ADDRESS .
FROM python:3.11-slim-bookworm

# What scripts/bootstrap.sh would install for rendering, and a compiler for trainer.compile=true and
# for the packages without a wheel; in the distribution's versions, which get its security fixes.
# hadolint ignore=DL3008
RUN apt-get update \
    && apt-get install -y --no-install-recommends build-essential libegl1 libgl1-mesa-dri libopengl0 \
    && rm -rf /var/lib/apt/lists/*

ARG TORCH_INDEX_URL=""
ENV PIP_NO_CACHE_DIR=1 \
    NVIDIA_DRIVER_CAPABILITIES=compute,graphics,utility
WORKDIR /app

# The environment depends on these files alone: a changed line of code does not install it again.
COPY run pyproject.toml requirements.lock README.md LICENSE ./
COPY scripts/bootstrap.sh scripts/render_probe.py scripts/
RUN PIP_EXTRA_INDEX_URL="$TORCH_INDEX_URL" ./run setup

COPY . .
RUN ./run setup

ENTRYPOINT ["./run"]
CMD ["eval"]
