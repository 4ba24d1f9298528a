window.env = { environment: "uat", project: "packet", api: "http://api.uat.package.test" };
