window.env = { environment: "test", project: "packet", api: "http://api.test.package.test" };
