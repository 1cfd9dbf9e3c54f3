# Short names for ./run, which needs no make.
.PHONY: eval test check format docs setup lock
eval test check format docs setup:
	@./run $@
lock:
	@scripts/lock.sh
