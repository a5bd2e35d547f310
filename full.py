import resource,time
resource.setrlimit(resource.RLIMIT_NOFILE,(3,3))
time.sleep(1000)
