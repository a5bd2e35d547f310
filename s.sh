#!/bin/sh
timeout 1000 sleep 777 &
wait
