"""An example DAG: submit the night to the standing cluster, and wait for its exit status.

The scheduler's workers have a checkout with its environment, whose folder is Airflow's variable
`anomaray_home`, and the token of the cluster in RAY_AUTH_TOKEN_PATH, from the environment of the
worker, never from here: Airflow shows commands and variables to everyone who may see the DAG. A
retry resumes: what is committed is not done twice, and a job that still runs is attached to.
"""

from datetime import UTC, datetime, timedelta

from airflow.providers.standard.operators.bash import BashOperator
from airflow.sdk import DAG

# The head's Service of infra/kuberay, reached from a namespace labelled anomaray.io/may-submit.
ADDRESS = "http://anomaray-head-svc.anomaray.svc:8265"

with DAG(
    dag_id="anomaray_nightly",
    description="Score every complete day that is not committed.",
    schedule="30 1 * * *",
    start_date=datetime(2026, 1, 1, tzinfo=UTC),
    catchup=False,  # a night does all days that are due by itself
    max_active_runs=1,
    default_args={"retries": 3, "retry_delay": timedelta(minutes=15)},
) as dag:
    BashOperator(
        task_id="nightly",
        cwd="{{ var.value.anomaray_home }}",
        bash_command=(
            ".venv/bin/python -m jobs submit nightly specs/mine.yaml --json "
            f"--environment image --address {ADDRESS}"
        ),
        append_env=True,
        execution_timeout=timedelta(hours=20),
    )
