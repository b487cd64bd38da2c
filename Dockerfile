# lvqa with all that it needs. The embedded model runs without a GPU:
#   docker build -t lvqa .
#   docker run --rm lvqa demo
#   docker run --rm --gpus all -v "$PWD:/data" -v lvqa-store:/store lvqa ask video.mp4 "What happens at the end?"
# PyTorch's package has CUDA's libraries, so the base image need only make the driver usable.
FROM nvidia/cuda:13.0.2-base-ubuntu24.04

# hadolint ignore=DL3008
RUN apt-get update \
    && apt-get install -y --no-install-recommends python3 python3-venv \
    && rm -rf /var/lib/apt/lists/* \
    && python3 -m venv /opt/lvqa \
    && useradd --create-home --uid 10001 lvqa \
    && install -d -o lvqa /data /store

ENV PATH="/opt/lvqa/bin:$PATH" \
    LVQA_HOME=/store \
    HF_HOME=/store/huggingface

# PyTorch in a layer of its own, since it is most of the image and seldom changes.
WORKDIR /src
COPY constraints.txt ./
RUN pip install --no-cache-dir --constraint constraints.txt torch==2.13.0
COPY LICENSE README.md pyproject.toml ./
COPY lvqa lvqa
RUN pip install --no-cache-dir --constraint constraints.txt .

USER 10001
WORKDIR /data
VOLUME /store
ENTRYPOINT ["lvqa"]
CMD ["--help"]
