# plmscope on a CPU, from the repository alone:
#
#   docker build -t plmscope .
#   docker run --rm -v "$PWD:/data" plmscope demo
#
# For an NVIDIA GPU leave INDEX empty, so that PyTorch comes with CUDA: --build-arg INDEX= ; then docker run --gpus all ...
FROM python:3.12-slim

ARG INDEX=https://download.pytorch.org/whl/cpu
ENV PIP_NO_CACHE_DIR=1 HF_HOME=/data/.cache/huggingface

COPY pyproject.toml constraints.txt README.md LICENSE /plmscope/
COPY src /plmscope/src
RUN pip install ${INDEX:+--extra-index-url "$INDEX"} /plmscope -c /plmscope/constraints.txt \
    && plmscope --version

WORKDIR /data
ENTRYPOINT ["plmscope"]
CMD ["--help"]
