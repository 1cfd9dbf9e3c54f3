# Short names for ./run, which needs no make.
.PHONY: eval test check format setup lock
eval test check format setup:
	@./run $@
lock:
	@scripts/lock.sh
