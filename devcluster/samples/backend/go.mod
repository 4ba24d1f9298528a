module package-platform/samples/backend

go 1.26.0
