"""SageMaker on one machine: real-time and asynchronous endpoints, and training jobs.

    python -m local.sagemaker --endpoint nst=http://127.0.0.1:8081 --output s3://bucket/async/output
    AWS_ENDPOINT_URL_SAGEMAKER_RUNTIME=http://127.0.0.1:8090 python my_program_that_uses_boto3.py

AWS_ENDPOINT_URL_SAGEMAKER=http://127.0.0.1:8090 leads to the training jobs, with --training DIR.

A model server is any program that answers GET /ping and POST /invocations. S3 is wherever boto3
finds it; set AWS_ENDPOINT_URL_S3 for one on this machine. An asynchronous request is accepted once
it is in S3, below sagemaker/queue/, and is removed from there once its output or its failure is in
S3. Kill this program at any time: its next start finds the requests that had not ended, and sends
them again. A training job goes on from its checkpoints. Only one process may serve a queue. GET
/endpoints tells the state of each endpoint.
"""
