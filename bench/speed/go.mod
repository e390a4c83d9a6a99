module modelsplit/bench/speed

go 1.22
