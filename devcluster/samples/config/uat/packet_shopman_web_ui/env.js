window.env = { environment: "uat", project: "packet_shopman_web_ui", api: "http://api.uat.package.test" };
