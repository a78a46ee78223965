# The image of the stack's own services: `hearback` and nothing else, as a user without rights.

FROM python:3.11.15-slim-bookworm AS build
RUN python -m venv /opt/hearback
ENV PATH=/opt/hearback/bin:$PATH PIP_NO_CACHE_DIR=1 PIP_DISABLE_PIP_VERSION_CHECK=1
WORKDIR /build
# The libraries first, by themselves: their layer stays when only the code has changed.
COPY pyproject.toml constraints.txt ./
RUN python -c "import tomllib; print(*tomllib.load(open('pyproject.toml', 'rb'))['project']['dependencies'], sep='\n')" > libraries.txt \
 && pip install --constraint constraints.txt --requirement libraries.txt
COPY README.md LICENSE hearback_stream.py ./
COPY stream stream
COPY producers producers
RUN pip install --no-deps .
# The kernel is compiled now, into a folder that goes along; on another kind of processor than the
# builder's it is compiled again, once.
ENV NUMBA_CACHE_DIR=/opt/hearback/kernel
RUN cd / && python -c "from stream.updaters.newton import warm_up; warm_up()"

FROM python:3.11.15-slim-bookworm
ENV PATH=/opt/hearback/bin:$PATH NUMBA_CACHE_DIR=/opt/hearback/kernel PYTHONUNBUFFERED=1
# The folders of volumes are made here, so that volumes belong to the user.
RUN groupadd --gid 10001 hearback \
 && useradd --uid 10001 --gid 10001 --no-create-home --home-dir /var/lib/hearback hearback \
 && install --directory --owner=10001 --group=10001 /var/lib/hearback /market
COPY --from=build /opt/hearback /opt/hearback
COPY --from=build --chown=10001:10001 /opt/hearback/kernel /opt/hearback/kernel
USER 10001:10001
WORKDIR /var/lib/hearback
EXPOSE 9464 9465
STOPSIGNAL SIGTERM
CMD ["hearback", "--help"]
