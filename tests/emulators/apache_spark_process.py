"""Becomes Spark's own Spark Connect server: ``python apache_spark_process.py PORT FOLDER``."""

import os
import sys
from importlib.util import find_spec
from pathlib import Path


def main() -> None:
    port, folder = sys.argv[1:]
    found = find_spec("pyspark")
    assert found is not None
    assert found.origin is not None
    home = Path(found.origin).parent
    own = {
        "spark.connect.grpc.binding.address": "127.0.0.1",
        "spark.connect.grpc.binding.port": port,
        "spark.driver.bindAddress": "127.0.0.1",
        "spark.driver.host": "127.0.0.1",
        "spark.sql.shuffle.partitions": "2",
        "spark.sql.warehouse.dir": f"{folder}/warehouse",
        "spark.ui.enabled": "false",
    }
    settings = [part for key, value in own.items() for part in ("--conf", f"{key}={value}")]
    server = "org.apache.spark.sql.connect.service.SparkConnectServer"
    command = [str(home / "bin" / "spark-submit"), "--class", server, "--name", "tests"]
    memory = os.environ.get("BATUTA_SPARK_MEMORY", "2g")
    command += ["--master", "local[2]", "--driver-memory", memory, *settings, "spark-internal"]
    os.environ |= {"SPARK_HOME": str(home), "SPARK_LOCAL_IP": "127.0.0.1"}
    os.execv(command[0], command)


if __name__ == "__main__":
    main()
