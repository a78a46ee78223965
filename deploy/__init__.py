"""What runs hearback as a whole: the stack, its dashboards and its alerts. Never imported by it.

===========================  ===================================================================
``../docker-compose.yml``    the stack in containers; ``../Dockerfile`` makes its one own image
``compose``                  reads it: services, commands, folders, ports, what waits for what
``stack``                    ``make stack``: the same services as processes of this machine
``kafka``                    a Kafka of one node as a process; its jars come from Maven Central
``monitoring``               a Prometheus as a process, and what to ask of it
``browser``, ``picture``     ``make picture``: screenshots of Prometheus and of a worker's page
``prometheus/``              what is scraped, the alerts, and their unit tests
``dashboards/``              the code of the dashboards; ``make docs`` writes the files of
``grafana/dashboards/``      … Grafana, which ``grafana/provisioning/`` tells where they are
===========================  ===================================================================
"""
